"""The jobs table and what surrounds it: the truth about every job."""
