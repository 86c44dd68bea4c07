"""The tables, a module an area. Whoever imports one knows all, as their foreign keys and the migrations need."""

from core.jobs.models import files, jobs, projects, results, submissions, webhooks, workers

__all__ = ["files", "jobs", "projects", "results", "submissions", "webhooks", "workers"]
