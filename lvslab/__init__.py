"""lvslab, a testbed for Linux Virtual Server clusters: build a kernel, boot a cluster, apply a how-to,
check it."""
