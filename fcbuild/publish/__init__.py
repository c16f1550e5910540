"""Images for others: what an image is as files, and the registries and places where they go.

document: fcbuild.json, what an image is; script: boot.sh, which boots it with curl; bundle: all of
its files. oci, reference, credentials: what registries keep, and how they are spoken to.
"""
