"""What the fine-tuning API needs: its requests, names and result files, permissions, webhooks, models from a hub."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    with op.batch_alter_table("jobs") as table:
        table.add_column(sa.Column("request", sa.JSON(), nullable=True))
        table.add_column(sa.Column("result_file_id", sa.String(), nullable=True))
    with op.batch_alter_table("models") as table:
        table.add_column(sa.Column("alias", sa.String(), nullable=True))
        table.create_unique_constraint("uq_models_alias", ["alias"])
    with op.batch_alter_table("checkpoints") as table:
        table.add_column(sa.Column("is_epoch", sa.Boolean(), server_default=sa.false(), nullable=False))
    with op.batch_alter_table("checkpoints") as table:
        table.alter_column("is_epoch", server_default=None)
    op.create_table(
        "checkpoint_permissions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("checkpoint_id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name="fk_checkpoint_permissions_checkpoint_id_checkpoints"
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_checkpoint_permissions_project_id_projects"),
        sa.PrimaryKeyConstraint("id", name="pk_checkpoint_permissions"),
        sa.UniqueConstraint("checkpoint_id", "project_id", name="uq_checkpoint_permissions_checkpoint_id_project_id"),
    )
    op.create_index("ix_checkpoint_permissions_project_id", "checkpoint_permissions", ["project_id"])
    op.create_table(
        "model_fetches",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("revision", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("bytes_fetched", sa.BigInteger(), nullable=True),
        sa.Column("bytes_total", sa.BigInteger(), nullable=True),
        sa.Column("file_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_model_fetches_project_id_projects"),
        sa.PrimaryKeyConstraint("id", name="pk_model_fetches"),
    )
    op.create_index("ix_model_fetches_list", "model_fetches", ["project_id", "created_at", "id"])
    op.create_index("ix_model_fetches_silent", "model_fetches", ["status", "seen_at"])
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("event_types", sa.JSON(), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("old_secret", sa.String(), nullable=True),
        sa.Column("old_secret_until", sa.Double(), nullable=True),
        sa.Column("failing_since", sa.Double(), nullable=True),
        sa.Column("disabled_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_webhook_endpoints_project_id_projects"),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_endpoints"),
    )
    op.create_index("ix_webhook_endpoints_list", "webhook_endpoints", ["project_id", "created_at", "id"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("endpoint_id", sa.String(), nullable=False),
        sa.Column("event_type", sa.String(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("tries", sa.BigInteger(), nullable=False),
        sa.Column("next_at", sa.Double(), nullable=False),
        sa.Column("response_status", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("delivered_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["webhook_endpoints.id"], name="fk_webhook_deliveries_endpoint_id_webhook_endpoints"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
    )
    op.create_index("ix_webhook_deliveries_due", "webhook_deliveries", ["status", "next_at"])
    op.create_index("ix_webhook_deliveries_list", "webhook_deliveries", ["endpoint_id", "created_at", "id"])


def downgrade() -> None:
    for name in ("webhook_deliveries", "webhook_endpoints", "model_fetches", "checkpoint_permissions"):
        op.drop_table(name)
    with op.batch_alter_table("checkpoints") as table:
        table.drop_column("is_epoch")
    with op.batch_alter_table("models") as table:
        table.drop_constraint("uq_models_alias", type_="unique")
        table.drop_column("alias")
    with op.batch_alter_table("jobs") as table:
        table.drop_column("result_file_id")
        table.drop_column("request")
