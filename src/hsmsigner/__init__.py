"""hsmsigner: an HSM-backed signing appliance. Start with docs/architecture.md."""
