"""The same labs on many kernels and versions of ipvsadm: cells, who runs them where, and reports of them."""
