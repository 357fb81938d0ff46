"""Parts of `schoffelen2019`: what was presented, by logs and texts, and when, by triggers."""
