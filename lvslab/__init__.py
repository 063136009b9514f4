"""lvslab: a testbed for Linux Virtual Server clusters. Build a kernel, boot a cluster, apply a how-to, check it."""
