"""Examination of what lies around a service that does not answer: routes, routers, cards and filters."""
