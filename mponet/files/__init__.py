"""Files: read through one door with limits and a schema, written whole or not at all."""

from mponet.files.reader import MAX_DOCUMENT as MAX_DOCUMENT
from mponet.files.reader import MAX_LINES as MAX_LINES
from mponet.files.reader import exists as exists
from mponet.files.reader import parse_json as parse_json
from mponet.files.reader import read_bytes as read_bytes
from mponet.files.reader import read_if_present as read_if_present
from mponet.files.reader import read_json as read_json
from mponet.files.writer import check_writable as check_writable
from mponet.files.writer import remove_leftovers as remove_leftovers
from mponet.files.writer import replacing as replacing
from mponet.files.writer import sync_folder as sync_folder
from mponet.files.writer import temporary_path as temporary_path
from mponet.files.writer import to_json as to_json
from mponet.files.writer import write_atomically as write_atomically
from mponet.files.writer import write_chunks as write_chunks
from mponet.files.writer import write_json as write_json
from mponet.files.writer import write_json_once as write_json_once
from mponet.files.writer import writing as writing
