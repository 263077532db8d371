"""Files on this machine and in a store: S3, Google Cloud Storage, Azure Blob Storage."""
