"""Where the superblocks of two ext4 file systems differ, field by field.

Source of names and places: Documentation/filesystems/ext4/super.rst.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

START, SIZE = 1024, 1024  # bytes

# Offset and name; a field ends where the next begins. Little-endian numbers, but for BYTES.
_FIELDS: tuple[tuple[int, str], ...] = (
    (0x0, "s_inodes_count"),
    (0x4, "s_blocks_count_lo"),
    (0x8, "s_r_blocks_count_lo"),
    (0xC, "s_free_blocks_count_lo"),
    (0x10, "s_free_inodes_count"),
    (0x14, "s_first_data_block"),
    (0x18, "s_log_block_size"),
    (0x1C, "s_log_cluster_size"),
    (0x20, "s_blocks_per_group"),
    (0x24, "s_clusters_per_group"),
    (0x28, "s_inodes_per_group"),
    (0x2C, "s_mtime"),
    (0x30, "s_wtime"),
    (0x34, "s_mnt_count"),
    (0x36, "s_max_mnt_count"),
    (0x38, "s_magic"),
    (0x3A, "s_state"),
    (0x3C, "s_errors"),
    (0x3E, "s_minor_rev_level"),
    (0x40, "s_lastcheck"),
    (0x44, "s_checkinterval"),
    (0x48, "s_creator_os"),
    (0x4C, "s_rev_level"),
    (0x50, "s_def_resuid"),
    (0x52, "s_def_resgid"),
    (0x54, "s_first_ino"),
    (0x58, "s_inode_size"),
    (0x5A, "s_block_group_nr"),
    (0x5C, "s_feature_compat"),
    (0x60, "s_feature_incompat"),
    (0x64, "s_feature_ro_compat"),
    (0x68, "s_uuid"),
    (0x78, "s_volume_name"),
    (0x88, "s_last_mounted"),
    (0xC8, "s_algorithm_usage_bitmap"),
    (0xCC, "s_prealloc_blocks"),
    (0xCD, "s_prealloc_dir_blocks"),
    (0xCE, "s_reserved_gdt_blocks"),
    (0xD0, "s_journal_uuid"),
    (0xE0, "s_journal_inum"),
    (0xE4, "s_journal_dev"),
    (0xE8, "s_last_orphan"),
    (0xEC, "s_hash_seed"),
    (0xFC, "s_def_hash_version"),
    (0xFD, "s_jnl_backup_type"),
    (0xFE, "s_desc_size"),
    (0x100, "s_default_mount_opts"),
    (0x104, "s_first_meta_bg"),
    (0x108, "s_mkfs_time"),
    (0x10C, "s_jnl_blocks"),
    (0x150, "s_blocks_count_hi"),
    (0x154, "s_r_blocks_count_hi"),
    (0x158, "s_free_blocks_count_hi"),
    (0x15C, "s_min_extra_isize"),
    (0x15E, "s_want_extra_isize"),
    (0x160, "s_flags"),
    (0x164, "s_raid_stride"),
    (0x166, "s_mmp_interval"),
    (0x168, "s_mmp_block"),
    (0x170, "s_raid_stripe_width"),
    (0x174, "s_log_groups_per_flex"),
    (0x175, "s_checksum_type"),
    (0x176, "s_encryption_level"),
    (0x178, "s_kbytes_written"),
    (0x180, "s_snapshot_inum"),
    (0x194, "s_error_count"),
    (0x198, "s_first_error_time"),
    (0x19C, "the place of the first and last error"),
    (0x200, "s_mount_opts"),
    (0x240, "s_usr_quota_inum"),
    (0x244, "s_grp_quota_inum"),
    (0x248, "s_overhead_blocks"),
    (0x24C, "s_backup_bgs"),
    (0x254, "s_encrypt_algos"),
    (0x258, "s_encrypt_pw_salt"),
    (0x268, "s_lpf_ino"),
    (0x26C, "s_prj_quota_inum"),
    (0x270, "s_checksum_seed"),
    (0x274, "s_wtime_hi"),
    (0x275, "s_mtime_hi"),
    (0x276, "s_mkfs_time_hi"),
    (0x277, "s_lastcheck_hi"),
    (0x278, "s_first_error_time_hi"),
    (0x279, "s_last_error_time_hi"),
    (0x27A, "what is reserved"),
    (0x3FC, "s_checksum"),
    (SIZE, ""),
)
_BYTES = {"s_uuid", "s_journal_uuid", "s_hash_seed", "s_encrypt_pw_salt", "s_jnl_blocks"}


def differing(a: bytes, b: bytes) -> Iterator[tuple[str, str, str]]:
    """Yield the name of each field that differs between two superblocks, and both values."""
    for (start, name), (end, _) in itertools.pairwise(_FIELDS):
        old, new = a[start:end], b[start:end]
        if old != new:
            yield name, _shown(name, old), _shown(name, new)


def _shown(name: str, raw: bytes) -> str:
    if name in _BYTES or len(raw) > 8:
        return raw.hex()
    return str(int.from_bytes(raw, "little"))
