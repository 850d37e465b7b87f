"""The link between gateway, brain and commands: a port with two adapters, in one process and over a local socket."""
