"""Every sentence that a buyer reads, in French and English: data. What a provider says to the payer is not here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

LANGUAGES: Final = ("fr", "en")
_BEFORE_MARK: Final = re.compile(" (?=[?!:;])")
Say = Callable[..., str]
"""`say("pay", amount="5 000 F")`: the sentence in the page's language."""

WORDS: Final[Mapping[str, tuple[str, str]]] = {
    # name: French, English; {names} are filled in
    "in_test": ("Essai : aucun argent réel.", "Test: no real money."),
    "pay_to": ("Vous payez à", "You are paying"),
    "order": ("Votre commande", "Your order"),
    "go_on": ("Continuer", "Continue"),
    "back": ("Retour", "Back"),
    "print": ("Imprimer cette page depuis le menu du navigateur.", "Print this page from the browser’s menu."),
    # choosing
    "wallet": ("Mobile money", "Mobile money"),
    "wallet_go": ("Payer par mobile money", "Pay by mobile money"),
    "number": ("Numéro qui paie", "Number that pays"),
    "number_hint": ("Il peut être différent du vôtre.", "It may be another one than yours."),
    "country": ("Pays du numéro", "Country of the number"),
    "email": ("Adresse e-mail", "E-mail address"),
    "email_hint": ("Ce moyen de paiement la demande.", "This way to pay asks for it."),
    "or": ("ou", "or"),
    "card_go": ("Payer par carte", "Pay by card"),
    "card_hint": ("Sur la page sécurisée de la banque.", "On the bank’s secure page."),
    "operator": ("Quel compte mobile money ?", "Which mobile money account?"),
    "suggested": ("proposé", "suggested"),
    "at_provider": ("Choisir sur la page suivante", "Choose on the next page"),
    "pay": ("Payer {amount}", "Pay {amount}"),
    "other_number": ("Changer de numéro", "Use another number"),
    "tries_left": ("Essais restants : {count}", "Tries left: {count}"),
    "no_way": (
        "Aucun moyen de paiement n’est disponible en ce moment. Réessayez plus tard ou parlez à la boutique.",
        "There is no way to pay at the moment. Try again later, or talk to the shop.",
    ),
    # the code
    "otp": ("Entrez le code", "Enter the code"),
    "otp_plain": (
        "Votre opérateur demande un code pour ce paiement.",
        "Your operator asks for a code for this payment.",
    ),
    "otp_field": ("Code reçu", "Code received"),
    "otp_go": ("Valider le code", "Confirm the code"),
    "otp_wrong": (
        "Ce code n’a pas été accepté. Essai {count} sur {most}.",
        "This code was not accepted. Try {count} of {most}.",
    ),
    "otp_over": (
        "Trop de codes ont été essayés. Cet essai va s’arrêter ; ensuite, vous pourrez recommencer.",
        "Too many codes were tried. This try is about to end; after that you can begin again.",
    ),
    # waiting
    "approve": ("Validez sur votre téléphone", "Approve on your phone"),
    "approve_plain": (
        "Une demande de paiement est sur votre téléphone. Entrez-y votre code secret, jamais ici.",
        "A payment request is on your phone. Type your PIN there, never here.",
    ),
    "approved": ("J’ai validé", "I have approved"),
    "check": ("Vérifier maintenant", "Check now"),
    "wait": ("Paiement en cours", "Payment under way"),
    "wait_plain": (
        "Nous attendons la confirmation. Cela prend souvent moins d’une minute.",
        "We are waiting for the confirmation. It often takes less than a minute.",
    ),
    "refreshes": (
        "Cette page se met à jour toute seule. Vous pouvez la fermer et y revenir.",
        "This page updates by itself. You may close it and come back.",
    ),
    "asked": ("Nous venons de demander : pas encore de réponse.", "We have just asked: no answer yet."),
    "unknown": ("Ne payez pas une deuxième fois", "Do not pay again"),
    "unknown_plain": (
        (
            "La réponse s’est perdue en route. Nous demandons à votre opérateur si le paiement est passé. "
            "Si de l’argent a été pris, il n’est pas perdu."
        ),
        (
            "The answer was lost on its way. We are asking your operator whether the payment went through. "
            "If money was taken, it is not lost."
        ),
    ),
    "ending": ("Le délai est dépassé", "The time is over"),
    "ending_plain": (
        (
            "Nous annulons la demande auprès de l’opérateur. Si vous l’avez déjà validée, attendez ici : "
            "ne payez pas une deuxième fois."
        ),
        "We are cancelling the request at the operator. If you have approved it already, wait here: do not pay again.",
    ),
    "redirect": ("Payez sur la page sécurisée", "Pay on the secure page"),
    "redirect_plain": (
        "Le paiement se fait sur la page de notre partenaire. Vous reviendrez ensuite ici.",
        "You pay on our partner’s page, and come back here afterwards.",
    ),
    "redirect_go": ("Aller à la page de paiement", "Go to the payment page"),
    "redirect_back": ("J’ai payé : vérifier", "I have paid: check"),
    "give_up": ("Annuler et changer de moyen", "Cancel and pay another way"),
    # ends
    "paid": ("Paiement reçu. Merci !", "Payment received. Thank you!"),
    "refunded": ("Paiement remboursé", "Payment refunded"),
    "refunded_plain": ("La somme vous a été rendue.", "The money was given back to you."),
    "refunded_part": ("Une partie vous a été rendue.", "A part of it was given back to you."),
    "held": ("La boutique vérifie votre paiement", "The shop is looking into your payment"),
    "held_plain": (
        "De l’argent est arrivé, mais pas comme prévu. Ne payez pas une deuxième fois : la boutique vous répondra.",
        "Money has come, but not as expected. Do not pay again: the shop will tell you.",
    ),
    "late_plain": (
        (
            "Votre argent est arrivé après la fin du délai. Ne payez pas une deuxième fois : la boutique décide de le "
            "garder pour votre achat ou de vous le rendre."
        ),
        (
            "Your money came after the time was over. Do not pay again: the shop decides whether it takes it for your "
            "purchase or gives it back."
        ),
    ),
    "failed": ("Le paiement n’a pas abouti", "The payment did not go through"),
    "failed_plain": (
        "Il ne reste plus d’essai sur cette page. Rien n’a été payé ici. Demandez à la boutique une nouvelle demande.",
        "No try is left on this page. Nothing was paid here. Ask the shop for a new request.",
    ),
    "expired": ("Cette demande a expiré", "This request has expired"),
    "expired_plain": (
        "Rien n’a été payé ici. Demandez à la boutique une nouvelle demande de paiement.",
        "Nothing was paid here. Ask the shop for a new payment request.",
    ),
    "canceled": ("Cette demande a été annulée", "This request was cancelled"),
    "canceled_plain": ("Rien n’a été payé ici.", "Nothing was paid here."),
    "try_again": ("Vous pouvez réessayer.", "You can try again."),
    "to_shop": ("Retour à la boutique", "Back to the shop"),
    # the receipt
    "receipt": ("Reçu", "Receipt"),
    "r_amount": ("Montant", "Amount"),
    "r_shop": ("Boutique", "Shop"),
    "r_for": ("Pour", "For"),
    "r_when": ("Date", "Date"),
    "r_how": ("Payé par", "Paid by"),
    "r_reference": ("Référence", "Reference"),
    "r_number": ("Numéro du paiement", "Payment number"),
    "card": ("Carte", "Card"),
    # links
    "link_amount": ("Quel montant ?", "How much?"),
    "link_bounds": ("De {least} à {most}.", "From {least} to {most}."),
    "link_go": ("Payer", "Pay"),
    "link_open": ("Montant libre", "Any amount"),
    "poster": ("Scannez pour payer", "Scan to pay"),
    "poster_how": (
        "Ouvrez l’appareil photo du téléphone et visez le code, ou tapez l’adresse :",
        "Open your phone’s camera and point it at the code, or type the address:",
    ),
    # faults
    "fault": ("Cette page ne peut pas s’ouvrir", "This page cannot be opened"),
    "other": ("Cela n’a pas marché. Réessayez.", "That did not work. Try again."),
}

REASONS: Final[Mapping[str, tuple[str, str]]] = {
    # `payments.facts.Reason`: why a try failed, for the payer
    "insufficient_funds": (
        "Le solde est insuffisant. Rechargez le compte ou payez autrement.",
        "There is not enough money in the account. Top it up, or pay another way.",
    ),
    "limit_reached": (
        "Le plafond de ce compte est atteint. Payez avec un autre compte ou demain.",
        "The limit of this account is reached. Pay with another account, or tomorrow.",
    ),
    "wrong_pin": ("Le code secret était faux.", "The PIN was wrong."),
    "timed_out": (
        "La demande n’a pas été validée à temps sur le téléphone.",
        "The request was not approved on the phone in time.",
    ),
    "declined_by_user": ("La demande a été refusée sur le téléphone.", "The request was declined on the phone."),
    "no_wallet": (
        "Ce numéro n’a pas de compte mobile money chez cet opérateur.",
        "This number has no mobile money account with this operator.",
    ),
    "number_mismatch": (
        "Ce numéro n’est pas de cet opérateur. Vérifiez le numéro et l’opérateur.",
        "This number is not with this operator. Check the number and the operator.",
    ),
    "provider_unavailable": (
        "L’opérateur ne répond pas en ce moment. Réessayez plus tard ou payez autrement.",
        "The operator does not answer at the moment. Try again later, or pay another way.",
    ),
    "unknown": ("Le paiement a été refusé sans autre précision.", "The payment was declined without a reason."),
    # How it ended where no reason is known.
    "canceled": ("Cet essai a été annulé. Rien n’a été payé.", "This try was cancelled. Nothing was paid."),
    "expired": ("Cet essai a expiré. Rien n’a été payé.", "This try has expired. Nothing was paid."),
}

WARNINGS: Final[Mapping[str, tuple[str, str]]] = {
    # `routing.operators.WARNINGS`, for the payer; none keeps anybody from paying
    "not_valid": (
        "Ce numéro a une forme inhabituelle. Vérifiez-le.",
        "This number looks unusual. Check it.",
    ),
    "old_number": (
        "Ce numéro a l’ancien format, remplacé par un plus long. Vérifiez-le.",
        "This number has the old format, which a longer one has replaced. Check it.",
    ),
    "other_country": (
        "Ce numéro est d’un autre pays que celui choisi.",
        "This number is of another country than the one chosen.",
    ),
    "fixed_line": (
        "Cela ressemble à une ligne fixe, qui n’a pas de compte mobile money.",
        "This looks like a fixed line, which has no mobile money account.",
    ),
    "no_operator": (
        "Nous ne connaissons pas d’opérateur pour ce numéro. Vérifiez-le.",
        "We know no operator with numbers like this one. Check it.",
    ),
    "other_operator": (
        "Ce numéro est d’habitude chez un autre opérateur.",
        "Numbers like this one are usually with another operator.",
    ),
}

REFUSED: Final[Mapping[str, tuple[str, str]]] = {
    # code of a Refusal: what the buyer may do about it
    "bad_phone": (
        "Ce n’est pas un numéro de téléphone. Exemple : {example}",
        "This is no phone number. An example: {example}",
    ),
    "bad_operator": ("Choisissez un des comptes proposés.", "Choose one of the accounts."),
    "bad_method": ("Choisissez un des moyens proposés.", "Choose one of the ways to pay."),
    "bad_country": ("Choisissez un des pays proposés.", "Choose one of the countries."),
    "bad_email": (
        "Écrivez une adresse e-mail, par exemple awa@exemple.com",
        "Write an e-mail address, such as awa@example.com",
    ),
    "no_provider": (
        "Ce moyen ne peut pas prendre ce montant en ce moment. Payez autrement.",
        "This way cannot take this amount at the moment. Pay another way.",
    ),
    "bad_otp": ("Le code a 1 à 20 chiffres ou lettres.", "The code has 1 to 20 digits or letters."),
    "otp_not_sent": (
        "L’opérateur n’a pas pu être joint ; le code n’a pas servi. Réessayez.",
        "The operator could not be reached; the code was not used. Try again.",
    ),
    "too_many_otps": (
        "Trop de codes ont été essayés. Cet essai va s’arrêter ; ensuite, vous pourrez recommencer.",
        "Too many codes were tried. This try is about to end; after that you can begin again.",
    ),
    "not_cancelable": (
        "Cet essai ne peut pas être annulé ; il s’arrêtera tout seul.",
        "This try cannot be cancelled; it ends by itself.",
    ),
    "out_of_stock": ("Il n’y en a plus.", "There is none left."),
    "order_not_payable": (
        "Cette commande ne peut plus être payée. Parlez à la boutique.",
        "This order can no longer be paid. Talk to the shop.",
    ),
    "link_used_up": ("Ce lien a déjà été payé.", "This link has been paid already."),
    "link_inactive": ("Ce lien n’est plus en service.", "This link is no longer in use."),
    "link_busy": (
        "Beaucoup de monde ouvre ce lien. Réessayez dans quelques minutes.",
        "Many people have this link open. Try again in a few minutes.",
    ),
    "merchant_disabled": (
        "Cette boutique ne prend pas de paiement en ce moment.",
        "This shop takes no payments at the moment.",
    ),
    "bad_amount": (
        "Écrivez un montant de {least} à {most}, en chiffres.",
        "Write an amount from {least} to {most}, in digits.",
    ),
    "bad_form": (
        "Ce formulaire était trop ancien ou venait d’ailleurs. Rien n’a été fait : recommencez.",
        "This form was too old or came from elsewhere. Nothing was done: begin again.",
    ),
    "too_fast": (
        "Trop d’essais en peu de temps. Attendez une minute.",
        "Too many tries in a short time. Wait a minute.",
    ),
    "not_found": (
        "Il n’y a rien à cette adresse. Vérifiez le lien reçu.",
        "There is nothing at this address. Check the link that you were sent.",
    ),
    "storage": (
        "Nous ne pouvons pas répondre à l’instant. Un paiement déjà validé n’est pas perdu : réessayez dans un moment.",
        "We cannot answer just now. A payment that you have approved is not lost: try again in a moment.",
    ),
}

COUNTRIES: Final[Mapping[str, tuple[str, str]]] = {
    "BF": ("Burkina Faso", "Burkina Faso"),
    "BJ": ("Bénin", "Benin"),
    "CD": ("Congo (RDC)", "Congo (DRC)"),
    "CG": ("Congo", "Congo"),
    "CI": ("Côte d’Ivoire", "Côte d’Ivoire"),
    "CM": ("Cameroun", "Cameroon"),
    "GA": ("Gabon", "Gabon"),
    "GH": ("Ghana", "Ghana"),
    "GN": ("Guinée", "Guinea"),
    "KE": ("Kenya", "Kenya"),
    "ML": ("Mali", "Mali"),
    "MW": ("Malawi", "Malawi"),
    "NE": ("Niger", "Niger"),
    "NG": ("Nigéria", "Nigeria"),
    "RW": ("Rwanda", "Rwanda"),
    "SN": ("Sénégal", "Senegal"),
    "TG": ("Togo", "Togo"),
    "TZ": ("Tanzanie", "Tanzania"),
    "UG": ("Ouganda", "Uganda"),
    "ZM": ("Zambie", "Zambia"),
}

MONTHS: Final[tuple[tuple[str, str], ...]] = (
    ("janvier", "January"), ("février", "February"), ("mars", "March"), ("avril", "April"), ("mai", "May"),
    ("juin", "June"), ("juillet", "July"), ("août", "August"), ("septembre", "September"), ("octobre", "October"),
    ("novembre", "November"), ("décembre", "December"),
)  # fmt: skip


def sayer(language: str, table: Mapping[str, tuple[str, str]] = WORDS) -> Say:
    """The sentences of one table in one language; a name that is not there is a KeyError."""
    column = LANGUAGES.index(language)

    def say(name: str, **values: object) -> str:
        # The space that French has before these is one at which no line ends.
        return _BEFORE_MARK.sub("\N{NO-BREAK SPACE}", table[name][column]).format(**values)

    return say


def refused(language: str, code: str, **values: object) -> str:
    """What to tell the buyer about a refusal, also one that has no sentence of its own."""
    return sayer(language, REFUSED)(code, **values) if code in REFUSED else sayer(language)("other")
