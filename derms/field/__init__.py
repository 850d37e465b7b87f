"""The gateway: what is polled, what should hold in every device, and the journal of every command."""
