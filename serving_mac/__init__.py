"""
How does one captioner serve many recordings and many users?

Here stand the applications on top of the captioner, on engines that exist: FastAPI and uvicorn for users, Ray for more
than one machine. Come in at a command: `server_cli.py` is `mac-serve`, `bulk_cli.py` is `mac-caption --ray`. Read on
in the order `server_app.py` (what is asked and answered), `server_uploads.py`, `server_batches.py` (requests that come
together), `server_captions.py` (the model's side), `server_answers.py`, `server_ray.py` (replicas); `bulk_ray.py`,
`bulk_files.py` (shards).
"""
