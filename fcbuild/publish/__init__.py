"""Publishing images: OCI artifacts, and the evidence that is attached to them."""
