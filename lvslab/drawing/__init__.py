"""Drawings of a lab: its networks, nodes, addresses, gateways and services."""
