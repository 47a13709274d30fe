"""The HTTP and WebSocket doors of a server: users, the dashboard and agents come in here."""
