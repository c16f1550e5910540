"""ext4 file systems, written and read without a mount, without root and without other tools."""
