"""The licences and languages that the hub accepts in a model card. The hub refuses other cards, after the training."""

import re

from pipelines.config.validation_errors import closest, suggest

# https://huggingface.co/docs/hub/repositories-licenses
LICENCES = re.findall(
    r"\S+",
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    openrail++ afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0
    cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0
    cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0
    cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl
    gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 lgpl-lr isc h-research intel-research lppl-1.3c ms-pl apple-ascl
    apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl
    deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma
    grok2-community unknown other
    """,
)

# ISO 639-1
LANGUAGES = dict(
    pair.split(" ", 1)
    for pair in """aa afar,ab abkhazian,ae avestan,af afrikaans,ak akan,am amharic,an aragonese,ar arabic,
as assamese,av avaric,ay aymara,az azerbaijani,ba bashkir,be belarusian,bg bulgarian,bh bihari,
bi bislama,bm bambara,bn bengali,bo tibetan,br breton,bs bosnian,ca catalan,ce chechen,
ch chamorro,co corsican,cr cree,cs czech,cu church slavic,cv chuvash,cy welsh,da danish,
de german,dv divehi,dz dzongkha,ee ewe,el greek,en english,eo esperanto,es spanish,et estonian,
eu basque,fa persian,ff fulah,fi finnish,fj fijian,fo faroese,fr french,fy western frisian,
ga irish,gd gaelic,gl galician,gn guarani,gu gujarati,gv manx,ha hausa,he hebrew,hi hindi,
ho hiri motu,hr croatian,ht haitian,hu hungarian,hy armenian,hz herero,ia interlingua,
id indonesian,ie interlingue,ig igbo,ii sichuan yi,ik inupiaq,io ido,is icelandic,it italian,
iu inuktitut,ja japanese,jv javanese,ka georgian,kg kongo,ki kikuyu,kj kuanyama,kk kazakh,
kl kalaallisut,km khmer,kn kannada,ko korean,kr kanuri,ks kashmiri,ku kurdish,kv komi,
kw cornish,ky kirghiz,la latin,lb luxembourgish,lg ganda,li limburgish,ln lingala,lo lao,
lt lithuanian,lu luba-katanga,lv latvian,mg malagasy,mh marshallese,mi maori,mk macedonian,
ml malayalam,mn mongolian,mo moldavian,mr marathi,ms malay,mt maltese,my burmese,na nauru,
nb norwegian bokmal,nd north ndebele,ne nepali,ng ndonga,nl dutch,nn norwegian nynorsk,
no norwegian,nr south ndebele,nv navajo,ny chichewa,oc occitan,oj ojibwa,om oromo,or oriya,
os ossetian,pa punjabi,pi pali,pl polish,ps pashto,pt portuguese,qu quechua,rm romansh,
rn rundi,ro romanian,ru russian,rw kinyarwanda,sa sanskrit,sc sardinian,sd sindhi,
se northern sami,sg sango,sh serbo-croatian,si sinhala,sk slovak,sl slovenian,sm samoan,
sn shona,so somali,sq albanian,sr serbian,ss swati,st southern sotho,su sundanese,sv swedish,
sw swahili,ta tamil,te telugu,tg tajik,th thai,ti tigrinya,tk turkmen,tl tagalog,tn tswana,
to tonga,tr turkish,ts tsonga,tt tatar,tw twi,ty tahitian,ug uighur,uk ukrainian,ur urdu,
uz uzbek,ve venda,vi vietnamese,vo volapuk,wa walloon,wo wolof,xh xhosa,yi yiddish,yo yoruba,
za zhuang,zh chinese,zu zulu""".replace("\n", "").split(",")
)


def licence(name: str) -> str:
    """A licence as the hub names it. Raises ValueError for a licence that the hub does not know."""
    if name in LICENCES:
        return name
    plain = re.sub(r"[\s_]+", "-", name.strip().lower())
    plain = re.sub(r"^(the-)?(.+)-licen[cs]e$", r"\2", plain)
    hint = f": did you mean {plain!r}?" if plain in LICENCES else suggest(plain, LICENCES)
    raise ValueError(f"the hub knows no licence {name!r}{hint}; one that it does not list is `other`")


def language(code: str) -> str:
    """A language as the hub names it: two letters (ISO 639-1) or three (639-2, 639-3), or `code`, or `multilingual`.

    Raises ValueError for a language that the hub does not know.
    """
    if code in LANGUAGES or code in ("code", "multilingual") or re.fullmatch(r"[a-z]{3}", code):
        return code
    plain = code.strip().lower()
    named = next((own for own, name in LANGUAGES.items() if name == plain), None)
    part = re.split(r"[-_]", plain)[0]
    meant = named or (part if part in LANGUAGES else None)
    if meant is None and len(plain) > 3:
        near = closest(plain, ["multilingual", *LANGUAGES.values()])
        meant = next((own for own, name in LANGUAGES.items() if name == near), near)
    hint = f": did you mean {meant!r}{_named(meant)}?" if meant else ""
    raise ValueError(
        f"the hub knows no language {code!r}{hint}; give a code of two or three small letters (ISO 639), such as en"
    )


def _named(code: str) -> str:
    return f" ({LANGUAGES[code]})" if code in LANGUAGES else ""
