"""Files: read through one door with limits and a schema, written whole or not at all."""

from mponet.files.reading import MAX_DOCUMENT as MAX_DOCUMENT
from mponet.files.reading import MAX_LINES as MAX_LINES
from mponet.files.reading import exists as exists
from mponet.files.reading import parse_json as parse_json
from mponet.files.reading import read_bytes as read_bytes
from mponet.files.reading import read_if_present as read_if_present
from mponet.files.reading import read_json as read_json
from mponet.files.writing import check_writable as check_writable
from mponet.files.writing import remove_leftovers as remove_leftovers
from mponet.files.writing import replacing as replacing
from mponet.files.writing import sync_folder as sync_folder
from mponet.files.writing import temporary_path as temporary_path
from mponet.files.writing import to_json as to_json
from mponet.files.writing import write_atomically as write_atomically
from mponet.files.writing import write_chunks as write_chunks
from mponet.files.writing import write_json as write_json
from mponet.files.writing import write_json_once as write_json_once
from mponet.files.writing import writing as writing
