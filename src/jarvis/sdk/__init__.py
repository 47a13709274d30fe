"""The client library: knows the REST API and the words of ``core``, nothing of the servers."""
