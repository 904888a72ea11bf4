"""The history of assessments in a SQL database."""
