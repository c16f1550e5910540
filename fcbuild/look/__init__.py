"""Looking inside built root filesystems: no boot, no mount, no root."""
