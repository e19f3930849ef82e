//! A typed client of the REST API, for the operator, the tests and whoever else talks to a node.
