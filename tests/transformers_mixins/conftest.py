"""The marks of transformers' common tests."""

MARKS = ("accelerate_tests", "flash_attn_test", "flash_attn_3_test", "flash_attn_4_test", "torch_compile_test",
         "is_pipeline_test", "is_training_test", "is_tensor_parallel_test", "is_fsdp_test",
         "is_expert_parallel_test", "generate", "order", "flash_attn_all_test")  # fmt: skip


def pytest_configure(config):
    for mark in MARKS:
        config.addinivalue_line("markers", f"{mark}: of transformers' common tests")
