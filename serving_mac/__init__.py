"""
How does one captioner serve many recordings and many users, and how are recordings found again?

Here stand the applications on top of the captioner, on engines that exist: FastAPI and uvicorn for users, Ray for more
than one machine, Parquet and safetensors for a collection that is searched. Come in at a command: `server_cli.py` is
`mac-serve`, `bulk_cli.py` is `mac-caption --ray`, `index_cli.py` and `search_cli.py` are `mac-index` and `mac-search`.
Read on in the order `server_app.py` (what is asked and answered), `server_uploads.py`, `server_batches.py` (requests
that come together), `server_captions.py` (the model's side), `server_answers.py`, `server_ray.py` (replicas);
`bulk_ray.py`, `bulk_files.py` (shards); `index_states.py` (windows and their states), `index_hearing.py` (files),
`index_folder.py` and `index_writer.py` (what lies on the disk), `caption_vectors.py`, `caption_search.py` (how a query
is answered). `commands.py` is where every command begins: this file imports nothing, so that they begin at once.
"""
