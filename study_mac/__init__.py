"""
The design space: which choice of language model, rank, connector or encoder makes the better captioner?

Come in at `cli` (`mac-study`). `study_file` reads axes and makes cells of them, `evaluations` checks how they are
scored, `running` trains and evaluates a cell with the commands of training_mac and evaluation_mac, which `processes`
starts and ends, `scheduling` goes through many, `dry_run` says what they would cost, `report`, `readable`, `figures`
and `page` show what came out. Nothing here trains or scores by itself.
"""
