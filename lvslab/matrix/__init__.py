"""Matrices: the same labs on many kernels and versions of ipvsadm, run by workers and reported."""
