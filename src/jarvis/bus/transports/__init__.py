"""Ways between servers, behind the port in ``bus/transport.py``."""
