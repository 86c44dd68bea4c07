"""What the API answers, as pydantic models beside what fills them: the OpenAPI schema is made from these."""
