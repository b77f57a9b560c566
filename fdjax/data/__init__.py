"""Problems, text and batches on the host: what happens before arrays reach a device."""
