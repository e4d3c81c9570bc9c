"""What `make demo` and the end-to-end tests run on; nothing else imports it, no published model holds it."""
