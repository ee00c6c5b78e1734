"""One file per page: it builds its form and parts; its handlers build one config and queue one job."""
