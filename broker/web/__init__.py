"""The dashboard: one live page, served from local files only, which reads the database and writes nothing."""
