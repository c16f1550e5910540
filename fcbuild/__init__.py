"""Build images for Firecracker microVMs that need no post-boot configuration, and boot them."""

__version__ = "0.1.0"
