"""Run the auth service: `python -m auth`."""

from auth.app import create_app
from auth.settings import AuthSettings
from healthguard.serve import serve

if __name__ == "__main__":
    settings = AuthSettings()
    serve(create_app(settings), settings)
