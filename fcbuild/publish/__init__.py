"""Images for others: what an image is as files, and where they go.

document: fcbuild.json, what an image is; script: boot.sh, which boots it with curl; bundle: all of
its files. reference: what artifacts in a registry are called; oci: their documents; registry, with
transport, answers, body and credentials: one repository of a registry.
"""
