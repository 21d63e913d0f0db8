"""Drill: three replicas behind a balancer, restarted, updated, killed, frozen and cut off."""
