"""The model hub: downloads, and retries while its network fails."""
