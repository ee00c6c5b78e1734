"""One file per page. A page builds its form and its parts; its handlers build one config and queue one job."""
