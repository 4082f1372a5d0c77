"""The names of CLDR that the embedded corpus uses: few enough that a model learns all of them."""


def _codes(text: str) -> tuple[str, ...]:
    return tuple(text.split())


TERRITORIES = _codes(
    """
    AD AE AF AL AM AO AR AT AU AZ BA BB BD BE BF BG BH BI BJ BN BO BR BS BT BW BY BZ CA CF CH CL CM CN CO CR CU CV
    CY CZ DE DJ DK DM DO DZ EC EE EG ER ES ET FI FJ FR GA GB GE GH GL GM GN GR GT GY HN HR HT HU ID IE IL IN IQ IR
    IS IT JM JO JP KE KG KH KR KW KZ LA LB LI LK LR LT LU LV LY MA MC MD ME MG MK ML MN MT MU MW MX MY MZ NA NE NG
    NI NL NO NP NZ OM PA PE PH PK PL PT PY QA RO RS RU RW SA SD SE SG SI SK SM SN SO SY TD TG TH TN TR TZ UA UG US
    UY UZ VE VN YE ZA ZM ZW
    """
)

LANGUAGES = _codes(
    """
    af am ar az be bg bn br bs ca cs cy da de el en eo es et eu fa fi fo fr fy ga gd gl gu ha he hi hr hu hy id ig
    is it ja ka kk km kn ko ku ky la lb lo lt lv mg mi mk ml mn mr ms mt my nb ne nl pa pl ps pt qu ro ru sa sk sl
    so sq sr sv sw ta te tg th tk tr uk ur uz vi xh yi yo zh zu
    """
)

CURRENCIES = _codes(
    """
    AED ARS AUD BGN BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HUF IDR ILS INR ISK JPY KES KRW KZT MAD MXN MYR
    NGN NOK NZD PEN PHP PKR PLN RON RSD RUB SAR SEK SGD THB TND TRY TWD UAH USD VND ZAR
    """
)

UNITS = _codes(
    """
    angle-degree area-acre area-hectare area-square-kilometer area-square-meter area-square-mile digital-byte
    digital-gigabyte digital-kilobyte digital-megabyte digital-terabyte duration-century duration-day
    duration-decade duration-hour duration-millisecond duration-minute duration-month duration-second duration-week
    duration-year electric-ampere electric-volt energy-joule energy-kilocalorie energy-kilowatt-hour
    frequency-hertz frequency-megahertz graphics-pixel length-centimeter length-foot length-inch length-kilometer
    length-light-year length-meter length-mile length-millimeter length-nautical-mile length-yard mass-carat
    mass-gram mass-kilogram mass-milligram mass-ounce mass-pound mass-tonne power-horsepower power-kilowatt
    power-megawatt power-watt pressure-bar pressure-hectopascal speed-kilometer-per-hour speed-knot
    speed-meter-per-second speed-mile-per-hour temperature-celsius temperature-fahrenheit temperature-kelvin
    volume-barrel volume-cubic-meter volume-cup volume-gallon volume-liter volume-milliliter volume-tablespoon
    volume-teaspoon
    """
)

# Units that are also written short ("12 km/h"). No English short form is another unit's short or long form.
UNITS_WITH_SYMBOL = _codes(
    """
    area-square-kilometer area-square-meter digital-gigabyte digital-kilobyte digital-megabyte digital-terabyte
    electric-volt energy-kilowatt-hour frequency-hertz frequency-megahertz length-centimeter length-kilometer
    length-meter length-millimeter mass-gram mass-kilogram mass-milligram power-kilowatt power-megawatt power-watt
    pressure-hectopascal speed-kilometer-per-hour speed-meter-per-second temperature-celsius temperature-fahrenheit
    volume-cubic-meter volume-milliliter
    """
)
