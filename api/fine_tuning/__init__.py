"""The fine-tuning API as the openai clients speak it: the same jobs as at /v1/jobs, in its words."""
