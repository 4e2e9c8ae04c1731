"""The server: TensorFlow Serving's REST contract, verdicts on uploads, and a page, over HTTP."""
