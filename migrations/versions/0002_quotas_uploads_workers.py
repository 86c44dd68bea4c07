"""Quotas, back-off, pausing, repeats of submissions, uploads in parts, and workers that tell of themselves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

QUOTAS = ("max_running_jobs", "max_unfinished_jobs", "max_stored_bytes", "max_gpu_seconds")
UPLOAD_STATUS = sa.Enum(
    "pending", "completed", "cancelled", "expired", name="upload_status", native_enum=False, length=16
)


def upgrade() -> None:
    with op.batch_alter_table("projects") as table:
        table.add_column(sa.Column("claimed_at", sa.Double(), nullable=True))
        for name in QUOTAS:
            table.add_column(sa.Column(name, sa.BigInteger(), nullable=True))
    op.drop_index("ix_jobs_claim", "jobs")
    with op.batch_alter_table("jobs") as table:
        table.alter_column("queued_at", new_column_name="claimable_at")
        table.add_column(sa.Column("pause_requested", sa.Boolean(), server_default=sa.false(), nullable=False))
    with op.batch_alter_table("jobs") as table:
        table.alter_column("pause_requested", server_default=None)
    first = ["project_id", "status", "device", sa.text("priority DESC"), "created_at", "id"]
    op.create_index("ix_jobs_claim", "jobs", first)
    with op.batch_alter_table("attempts") as table:
        table.add_column(sa.Column("device", sa.String(), nullable=True))
    op.create_index("ix_attempts_device", "attempts", ["device", "ended_at"])
    _create_spent_gpu()
    _create_submissions()
    _create_uploads()
    op.create_table(
        "workers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("has_gpu", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("is_draining", sa.Boolean(), nullable=False),
        sa.Column("drain_requested", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )


def _create_spent_gpu() -> None:
    op.create_table(
        "spent_gpu",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_spent_gpu_project_id_projects")),
        sa.PrimaryKeyConstraint("job_id", "fence", name=op.f("pk_spent_gpu")),
    )
    op.create_index("ix_spent_gpu_project_id", "spent_gpu", ["project_id"])


def _create_submissions() -> None:
    op.create_table(
        "submissions",
        sa.Column("resource_id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("body_sha256", sa.String(), nullable=False),
        sa.Column("retry_count", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_submissions_project_id_projects")),
        sa.PrimaryKeyConstraint("resource_id", name=op.f("pk_submissions")),
    )
    op.create_index("ix_submissions_repeat", "submissions", ["key_id", "body_sha256", "created_at"])


def _create_uploads() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("mime_type", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("status", UPLOAD_STATUS, nullable=False),
        sa.Column("file_id", sa.String(), nullable=True),
        sa.Column("file_seconds", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_uploads_project_id_projects")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index("ix_uploads_list", "uploads", ["project_id", "created_at", "id"])
    op.create_index("ix_uploads_expiry", "uploads", ["status", "expires_at"])
    op.create_table(
        "upload_parts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("upload_id", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("md5", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["upload_id"], ["uploads.id"], name=op.f("fk_upload_parts_upload_id_uploads")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload_parts")),
    )
    op.create_index(op.f("ix_upload_parts_upload_id"), "upload_parts", ["upload_id"])


def downgrade() -> None:
    for name in ("workers", "upload_parts", "uploads", "submissions", "spent_gpu"):
        op.drop_table(name)
    op.drop_index("ix_attempts_device", "attempts")
    with op.batch_alter_table("attempts") as table:
        table.drop_column("device")
    op.drop_index("ix_jobs_claim", "jobs")
    with op.batch_alter_table("jobs") as table:
        table.alter_column("claimable_at", new_column_name="queued_at")
        table.drop_column("pause_requested")
    op.create_index("ix_jobs_claim", "jobs", ["status", "priority", "created_at", "id"])
    with op.batch_alter_table("projects") as table:
        for name in ("claimed_at", *QUOTAS):
            table.drop_column(name)
