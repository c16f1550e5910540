"""Images for others: what an image is as files, and where they go.

document: fcbuild.json, what an image is; script: boot.sh, which boots it with curl; bundle: all of
its files; export, with layout, containerdisk and tarball: where they go without a registry.
reference: what artifacts in a registry are called; oci: their documents; registry, with transport,
answers, body and credentials: one repository of a registry.

Evidence, as EVIDENCE.md has it: subject, what is spoken of; sbom, provenance, bootresult, what is
said; statement, dsse, key, keyless, how it is said and by whom; policy and verdict, whether it
counts; evidence and audit, in a registry.
"""
