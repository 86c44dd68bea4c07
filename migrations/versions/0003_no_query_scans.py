"""A job knows whether it lacks weights, and every list and claim has an index that needs no sorting."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

IN_TURN = ["device", sa.text("priority DESC"), "created_at", "id"]
LACKS = """
UPDATE jobs SET lacks_weights = :yes WHERE EXISTS (
    SELECT 1 FROM dependencies JOIN jobs AS needed ON needed.id = dependencies.needs_id
    WHERE dependencies.job_id = jobs.id AND needed.status <> 'succeeded'
)
"""


def upgrade() -> None:
    op.drop_index("ix_jobs_claim", "jobs")
    with op.batch_alter_table("jobs") as table:
        table.add_column(sa.Column("lacks_weights", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.execute(sa.text(LACKS).bindparams(sa.bindparam("yes", True, type_=sa.Boolean())))
    with op.batch_alter_table("jobs") as table:
        table.alter_column("lacks_weights", server_default=None)
    op.create_index("ix_jobs_claim", "jobs", ["project_id", "status", "lacks_weights", *IN_TURN])
    op.create_index("ix_jobs_status", "jobs", ["project_id", "status", "created_at", "id"])
    op.create_index("ix_jobs_method", "jobs", ["project_id", "method", "status", "created_at", "id"])
    op.create_index("ix_files_purpose", "files", ["project_id", "purpose", "created_at", "id"])
    op.create_index("ix_files_expiry", "files", ["expires_at"])


def downgrade() -> None:
    for name in ("ix_files_expiry", "ix_files_purpose"):
        op.drop_index(name, "files")
    for name in ("ix_jobs_method", "ix_jobs_status", "ix_jobs_claim"):
        op.drop_index(name, "jobs")
    with op.batch_alter_table("jobs") as table:
        table.drop_column("lacks_weights")
    op.create_index("ix_jobs_claim", "jobs", ["project_id", "status", *IN_TURN])
