"""The Firecracker driver: API client, machine, guest link, and the hosts it can run on."""
