"""`mac-demo`: a page to try the captioner in a browser. An application: nothing imports it."""
