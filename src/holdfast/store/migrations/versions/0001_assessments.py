"""The table of assessments."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "assessments",
        sa.Column("seal", sa.String(64), primary_key=True),
        sa.Column("created", sa.String(20), nullable=False, index=True),
        sa.Column("system", sa.Text, nullable=False, index=True),
        sa.Column("budget", sa.Text, nullable=False),
        sa.Column("model_digest", sa.String(64), nullable=False),
        sa.Column("data_digest", sa.String(64), nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("mean_loss", sa.Float, nullable=False),
        sa.Column("p95_loss", sa.Float, nullable=False),
        sa.Column("measured", sa.Integer, nullable=False),
        sa.Column("unmeasured", sa.Integer, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("assessments")
