"""A run factory, a simulated search and conformance suites, for tests of the project and of extensions."""
