"""One packed layer as bytes: see docs/blob_format.md."""
